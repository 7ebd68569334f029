"""``jmrec leaderboard``: many session encoders beside the rules, as one JSON and one page."""
