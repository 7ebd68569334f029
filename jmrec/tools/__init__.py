"""Commands that help around a run: plan, sweep, inspect, convert, benchmark."""
