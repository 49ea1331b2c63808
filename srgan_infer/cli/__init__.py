"""The command ``srgan-upscale``. Nothing else imports it."""
