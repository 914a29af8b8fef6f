module zen-lead.io/e2e/tools

go 1.26.0
