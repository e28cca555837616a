"""Only the thread that traces is quiet."""

import sys
import threading

from tf_mem_magic.trace.quiet import quiet


def test_what_other_threads_print_is_not_lost(capsys):
    before = sys.stdout
    with quiet():
        print("traced")
        other = threading.Thread(target=print, args=("trained",))
        other.start()
        other.join()
    assert (sys.stdout is before, capsys.readouterr().out) == (True, "trained\n")
