"""Serves the app where requirements.txt is installed: `python app.py [--host H] [--port P]`.

Address and mode also come from GRADIO_SERVER_NAME, GRADIO_SERVER_PORT and BLOCKVIZ_MODE.
"""

import sys

from blockviz.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
