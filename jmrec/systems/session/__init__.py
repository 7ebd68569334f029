"""The system "session": session encoders over ids, over given item features, or over both."""
