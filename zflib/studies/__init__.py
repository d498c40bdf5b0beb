"""What one notebook measures beyond the experiments: one file for each of 06 to 11."""
