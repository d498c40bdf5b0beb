"""The exercises, one room per notebook; `zflib.check` has them all by name."""
