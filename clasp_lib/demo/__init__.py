"""A web page to search a collection of recordings, and to find the moment in a long one.

    from clasp_lib import CLASP
    from clasp_lib.demo import launch_demo
    launch_demo(CLASP.from_pretrained("pocket-search-linear"))

It answers on this machine only, keeps what visitors bring no longer than their visit, and loads nothing from elsewhere.
"""

from clasp_lib.demo.launch import build_demo, launch_demo
from clasp_lib.demo.limits import Limits

__all__ = ["Limits", "build_demo", "launch_demo"]
