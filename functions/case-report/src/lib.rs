//! The report of a case as one page of HTML.
