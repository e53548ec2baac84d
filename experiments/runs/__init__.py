"""``striate runs``: the table of all runs, and a page that compares some of them, from the files that runs leave."""
