"""``python -m srgan_infer``: the command."""

from srgan_infer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
