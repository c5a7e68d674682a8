"""Stage `promote`: make the challenger the champion if the evidence says so."""
