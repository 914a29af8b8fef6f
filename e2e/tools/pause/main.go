// Command pause does nothing until it gets a signal to stop. It is the sandbox of
// every pod on the local node and process 1 of the cluster's PID namespace, so
// it also collects the children that other processes leave behind.
//
// Nothing that knows about clusters belongs here: arguments are ignored (the
// scripts put the cluster's directory there, to recognise the process by).
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		// One SIGCHLD may stand for many children.
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}
