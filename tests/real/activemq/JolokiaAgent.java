import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.jolokia.backend.BackendManager;
import org.jolokia.config.ConfigKey;
import org.jolokia.config.Configuration;
import org.jolokia.http.HttpRequestHandler;
import org.jolokia.restrictor.AllowAllRestrictor;
import org.jolokia.util.QuietLogHandler;

/** Answers Jolokia's read requests at http://127.0.0.1:PORT/api/jolokia, as the console of ActiveMQ does. */
public class JolokiaAgent {
    private static final String ROOT = "/api/jolokia";

    public static void premain(String port) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(port)), 0);
        server.createContext(ROOT, exchange -> {
            String path = exchange.getRequestURI().getPath();
            String answer;
            try {
                answer = Lazy.HANDLER.handleGetRequest(path, path.substring(ROOT.length()), Map.of()).toJSONString();
            } catch (Throwable error) {
                answer = Lazy.HANDLER.handleThrowable(error).toJSONString();
            }
            byte[] body = answer.getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }

    // Made with the first request, when the broker has set up its own management.
    private static class Lazy {
        static final HttpRequestHandler HANDLER = handler();

        private static HttpRequestHandler handler() {
            Configuration configuration = new Configuration(ConfigKey.AGENT_ID, "test", ConfigKey.AGENT_CONTEXT, ROOT);
            QuietLogHandler quiet = new QuietLogHandler();
            AllowAllRestrictor all = new AllowAllRestrictor();
            return new HttpRequestHandler(configuration, new BackendManager(configuration, quiet, all), quiet);
        }
    }
}
