"""Run by test_two_processes.py: keeps member_of_two.py as `jmrec run` does, without loading JAX."""

import sys
from pathlib import Path

from jmrec.cluster.keeper import keep

sys.exit(keep(sys.argv[1:], [str(Path(__file__).with_name("member_of_two.py"))]))
