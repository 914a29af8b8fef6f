// Command review-load sends one AdmissionReview again and again over kept TLS
// connections, at a steady rate that does not depend on the answers, and prints
// the results as JSON. Every answer must allow the request; others count as failed.
//
// A request is timed from the moment it was due, not from when it could be
// sent: a webhook that falls behind must not look fast.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"sort"
	"sync"
	"time"
)

type client struct {
	connection *tls.Conn
	answers    *bufio.Reader
}

func main() {
	target := flag.String("url", "", "where to POST")
	path := flag.String("body", "", "file with the AdmissionReview")
	rate := flag.Int("rate", 1000, "reviews a second")
	seconds := flag.Int("seconds", 10, "how long")
	clients := flag.Int("connections", 16, "connections")
	flag.Parse()

	body, err := os.ReadFile(*path)
	check(err)
	to, err := url.Parse(*target)
	check(err)
	request := []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n%s", to.RequestURI(), to.Host, len(body), body))

	all := make([]*client, *clients)
	for i := range all {
		// The certificate is from zen-lead's own CA; the identity of the server does not matter here.
		connection, err := tls.Dial("tcp", to.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		check(err)
		all[i] = &client{connection, bufio.NewReader(connection)}
		_, err = all[i].review(request)
		check(err)
	}

	total := *rate * *seconds
	took := make([]time.Duration, total)
	failed := make([]bool, total)
	due := make(chan int, total)
	began := time.Now()
	step := time.Second / time.Duration(*rate)
	var working sync.WaitGroup
	for _, c := range all {
		working.Add(1)
		go func() {
			defer working.Done()
			for n := range due {
				allowed, err := c.review(request)
				check(err)
				failed[n] = !allowed
				took[n] = time.Since(began) - step*time.Duration(n)
			}
		}()
	}
	for n := range total {
		if wait := step*time.Duration(n) - time.Since(began); wait > 0 {
			time.Sleep(wait)
		}
		due <- n
	}
	close(due)
	working.Wait()
	spent := time.Since(began)

	sort.Slice(took, func(a, b int) bool { return took[a] < took[b] })
	bad := 0
	for _, f := range failed {
		if f {
			bad++
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		// The first of every connection is not in the times.
		"sent": total + *clients, "failed": bad, "seconds": spent.Seconds(),
		"p50_us": took[total/2].Microseconds(), "p99_us": took[total*99/100].Microseconds(),
	}))
}

func (c *client) review(request []byte) (bool, error) {
	if _, err := c.connection.Write(request); err != nil {
		return false, err
	}
	answer, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode == http.StatusOK && bytes.Contains(text, []byte(`"allowed":true`)), err
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
