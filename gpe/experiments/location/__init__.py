"""Where is the patch? (Table 1)"""
