"""What all reports share: statistics, formatting, pages, pictures and CSV files."""
