//! What operators do on a good day.
