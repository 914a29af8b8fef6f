// Command go-duration prints how Go reads durations: for every line of standard
// input, which is a string in hexadecimal, a line with its nanoseconds, or with
// the words of time.ParseDuration where it refuses (they hold no line breaks).
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"time"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		text, err := hex.DecodeString(lines.Text())
		check(err)
		value, err := time.ParseDuration(string(text))
		if err != nil {
			fmt.Fprintln(out, err)
		} else {
			fmt.Fprintln(out, int64(value))
		}
	}
	check(lines.Err())
	check(out.Flush())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
