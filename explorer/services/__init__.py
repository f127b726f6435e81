"""What the app does besides drawing: no Streamlit, no figures."""
