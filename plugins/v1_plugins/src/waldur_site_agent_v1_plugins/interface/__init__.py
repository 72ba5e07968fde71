"""What plugins of version 1 import: the modules below stand for those of ``waldur_site_agent``."""
