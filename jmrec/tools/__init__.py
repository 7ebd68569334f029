"""Commands beside the main line: inspect, plan."""
