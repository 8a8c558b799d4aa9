"""Putting things right: dead letters sent in again or set aside in files, requests sent that were stored."""
