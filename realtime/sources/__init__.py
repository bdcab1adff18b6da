"""Where pictures and sound come from: cameras, microphones, files, the demo; all alike to whoever reads them."""

import os

# OpenCV reads both when it is first loaded: an unplugged camera must be noticed within two seconds, not ten, and
# what it has to say about devices reaches people as our own one-line errors.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
