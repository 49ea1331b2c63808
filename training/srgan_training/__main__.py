"""``python -m srgan_training`` is ``srgan-train``, also behind ``accelerate launch -m``."""

import sys

from srgan_training.main import main

sys.exit(main())
