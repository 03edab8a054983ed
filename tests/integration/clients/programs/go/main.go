// Go's net/http, with nothing but the standard library; builds with Go 1.19.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"sync/atomic"
	"time"
)

type scenario struct {
	Name     string    `json:"name"`
	How      string    `json:"how"`
	Requests []request `json:"requests"`
}

type request struct {
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Headers  map[string]string `json:"headers"`
	Body     *body             `json:"body"`
	Trailers map[string]string `json:"trailers"`
}

type body struct {
	Size    int  `json:"size"`
	Chunked bool `json:"chunked"`
}

type result struct {
	Name     string   `json:"name"`
	Answers  []answer `json:"answers,omitempty"`
	Connects int64    `json:"connects"`
	Error    string   `json:"error,omitempty"`
}

func main() {
	var input struct {
		Origin    string     `json:"origin"`
		Scenarios []scenario `json:"scenarios"`
	}
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &input)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the input:", err)
		os.Exit(1)
	}
	output := json.NewEncoder(os.Stdout)
	output.SetEscapeHTML(false)
	for _, one := range input.Scenarios {
		client := newClient(input.Origin)
		answers, err := client.run(one)
		told := result{Name: one.Name, Answers: answers, Connects: atomic.LoadInt64(&client.connects)}
		if err != nil {
			told = result{Name: one.Name, Error: err.Error()}
		}
		client.http.CloseIdleConnections()
		if err := output.Encode(told); err != nil {
			os.Exit(1)
		}
	}
}

// client counts the connections that it makes.
type client struct {
	origin   string
	http     *http.Client
	connects int64
}

func newClient(origin string) *client {
	transport := &http.Transport{
		// What came is shown as it came.
		DisableCompression:    true,
		ExpectContinueTimeout: 30 * time.Second,
	}
	return &client{origin: origin, http: &http.Client{Transport: transport}}
}

func (c *client) run(one scenario) ([]answer, error) {
	switch one.How {
	case "early":
		return c.early(one.Requests[0])
	case "poll":
		return c.poll(one.Requests)
	case "stream":
		return c.stream(one.Requests)
	case "half-close":
		return c.halfClose(one.Requests[0])
	default:
		return c.inTurn(one.Requests)
	}
}

// trace notes what of an exchange the answer itself does not show.
func (c *client) trace(interim *[]int) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if !info.Reused {
				atomic.AddInt64(&c.connects, 1)
			}
		},
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code != http.StatusContinue {
				*interim = append(*interim, code)
			}
			return nil
		},
	}
}
