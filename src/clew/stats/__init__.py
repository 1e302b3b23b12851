"""pass@k, votes and intervals: what turns samples into numbers that can be believed."""
