import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, threading
from llmjax.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    bytearray(2**26)  # 16,384 pages, which calloc or memset touches
    before = faults()
    for _ in range(4):
        bytearray(b"x") * 2**26
    print(kept, faults() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is Linux's")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    def faults(mode: str) -> tuple[str, int]:
        words = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True).stdout
        kept, count = words.split()
        return kept, int(count)

    kept, few = faults("keep")
    if kept == "False":
        pytest.skip("this system's malloc is not glibc's")
    _, many = faults("leave")
    assert few < many / 4
