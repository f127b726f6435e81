"""The Streamlit app over chipcore. It shows what chipcore computes and computes nothing itself."""
