"""A Hugging Face Space: the page with its limits, at the address that Spaces expect."""

from srgan_infer import web

if __name__ == "__main__":
    web.serve(host="0.0.0.0", port=7860, **web.LIMITS)
