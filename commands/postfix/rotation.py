"""postfix logrotate: move maillog_file away, compress it, and have postlogd(8) open a new one."""

import os
import subprocess
import time

from libmail.config import Config
from libmail.log import Fatal

__all__ = ["rotate"]


def rotate(config: Config) -> None:
    """Raises Fatal. postlogd notices within a second of the next line that its file has gone."""
    path = config.text("maillog_file")
    suffix = config.text("maillog_file_rotate_suffix")
    compressor = config.text("maillog_file_compressor")
    for name in ("maillog_file", "maillog_file_rotate_suffix", "maillog_file_compressor"):
        if not config.text(name):
            raise Fatal(f"empty '{name}' parameter value - logfile rotation failed")
    if path.startswith("/dev/"):
        raise Fatal(f"not rotating '{path}'")
    rotated = f"{path}.{time.strftime(suffix)}"
    try:
        os.rename(path, rotated)
        # A line may be on its way into the old file until postlogd has looked again.
        time.sleep(2.0)
        subprocess.run([*compressor.split(), rotated], check=True)
    except (OSError, subprocess.CalledProcessError) as err:
        raise Fatal(f"logfile '{path}' rotation failed: {err}") from err
