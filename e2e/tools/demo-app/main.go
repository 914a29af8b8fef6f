// Command demo-app is the web server that the end-to-end tests and the examples
// run as pods. It answers every path on port 8080 (IPv4 and IPv6) with the name
// of its pod and a newline, and lets a test decide when it is ready and how it
// dies. It knows nothing of zen-lead: the point is that an app needs no change.
//
//	GET  /healthz            200, or 503 after a POST /ready?value=false
//	POST /ready?value=BOOL   switches what /healthz says
//	any other request        the pod's name (POD_NAME, otherwise the host name)
//
// On SIGTERM it keeps serving for -term-delay and then exits, as an app does
// that lets clients notice; with -exit-at-once it is gone with the signal.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	addr := flag.String("addr", ":8080", "address to listen on")
	termDelay := flag.Duration("term-delay", time.Second, "how long to keep serving after SIGTERM")
	exitAtOnce := flag.Bool("exit-at-once", false, "exit on SIGTERM without serving any longer")
	startReady := flag.Bool("ready", true, "what /healthz says at first")
	flag.Parse()

	name := os.Getenv("POD_NAME")
	if name == "" {
		name, _ = os.Hostname()
	}
	var ready atomic.Bool
	ready.Store(*startReady)

	go exitOnSignal(*termDelay, *exitAtOnce)
	server := &http.Server{
		Addr:              *addr,
		Handler:           handler(name, &ready),
		ReadHeaderTimeout: 5 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}

func handler(name string, ready *atomic.Bool) http.Handler {
	// A plain function and not a ServeMux: a mux redirects paths such as
	// "//x", and every path is to be answered.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" && !ready.Load():
			http.Error(w, name+" was set not ready", http.StatusServiceUnavailable)
			return
		case r.URL.Path == "/ready" && r.Method == http.MethodPost:
			value, err := strconv.ParseBool(r.URL.Query().Get("value"))
			if err != nil {
				http.Error(w, "POST /ready?value=true or ?value=false", http.StatusBadRequest)
				return
			}
			ready.Store(value)
		}
		fmt.Fprintln(w, name)
	})
}

func exitOnSignal(delay time.Duration, atOnce bool) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	<-signals
	if !atOnce {
		time.Sleep(delay)
	}
	os.Exit(0)
}
