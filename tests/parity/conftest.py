"""No test modules; pytest would import them for their doctests."""

collect_ignore = ["torch_efficientnet.py"]
