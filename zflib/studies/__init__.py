"""What one notebook measures beyond the experiments, on any network, one file for each."""

# rectification: 02, the control of the three rules. transposes: 03, the transpose of a filter.
# training: 05, what is drawn of crops, networks and loops.
# units, gallery, channel_names and naming: 06, Figure 2. figure2_controls and light: what a sceptic
# asks of it.
# evolution and evolution_controls: 07, Figure 4. architecture and architecture_drawn: 08, Figure 6.
# localisation: 09, Figure 7. moves and firing_rates: 10, Figure 5, and its single units.
# parts_and_places and dogs: 11, Table 1. ablation: 12, Tables 2 and 3. transfer: 13, Tables 4, 5 and 7, Figure 9.
# curvature: 14, the Hessian of a unit. running_costs: 15, time and memory.
