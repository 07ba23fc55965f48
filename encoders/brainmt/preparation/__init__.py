"""From scans of any origin to the fMRI store: found, read, checked, brought to one form, stored; and its quality report."""
