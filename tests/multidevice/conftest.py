"""These run as scripts, in processes of their own; pytest would import them for their doctests."""

collect_ignore = ["eight_devices.py", "member_of_two.py", "plan_eight_devices.py", "topologies.py"]
