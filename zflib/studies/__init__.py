"""What one notebook measures beyond the experiments, on any network, one file for each."""

# units and gallery: 06, Figure 2. evolution: 07, Figure 4. architecture: 08, Figure 6. localisation: 09, Figure 7.
# light: how much of a lit patch is geometry. firing_rates: 10, single units under Figure 5's moves. dogs: 11, Table 1.
