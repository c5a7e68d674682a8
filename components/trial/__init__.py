"""Stage `trial`: draw the fresh rollouts that decide between a challenger and the champion."""
