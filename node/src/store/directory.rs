//! Whose data a directory holds, and what that data depends on. Checked before the store is opened.
