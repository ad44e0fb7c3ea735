//! Reads the public traces of Azure Functions.
