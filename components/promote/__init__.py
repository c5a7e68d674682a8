"""Stage `promote`: make the challenger the champion, on evidence only."""
