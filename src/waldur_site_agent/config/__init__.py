"""The YAML file becomes typed settings, or an error that says where and how to mend it."""
