//! A seeded simulation of everything that decides.
