"""Private names of Lightning and of torch's loaders that polytask rests on, and the messages it silences.

The only room to change when Lightning changes. It knows no other room than the errors.
"""
