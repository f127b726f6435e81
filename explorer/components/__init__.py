"""Controls that Streamlit does not have: a little JavaScript each, served by our own server."""
