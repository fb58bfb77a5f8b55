"""The gradio front end: parses what people do, calls one session method, draws the answer."""
