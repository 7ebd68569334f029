"""results.json and cost.json shown: one HTML page, and tables on the terminal."""
