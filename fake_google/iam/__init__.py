"""Identity and Access Management: policies, custom roles, identity pools and signatures."""
