"""Models side by side in a browser, votes on their answers, ratings, and preference pairs."""
