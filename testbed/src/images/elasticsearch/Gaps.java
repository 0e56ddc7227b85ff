package gaps;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.function.Predicate;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.email.UAX29URLEmailTokenizer;
import org.apache.lucene.analysis.miscellaneous.RemoveDuplicatesTokenFilter;
import org.apache.lucene.analysis.pattern.PatternCaptureGroupTokenFilter;
import org.apache.lucene.util.Version;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.metadata.IndexNameExpressionResolver;
import org.elasticsearch.cluster.node.DiscoveryNodes;
import org.elasticsearch.common.bytes.BytesReference;
import org.elasticsearch.common.io.stream.NamedWriteableRegistry;
import org.elasticsearch.common.settings.ClusterSettings;
import org.elasticsearch.common.settings.IndexScopedSettings;
import org.elasticsearch.common.settings.Setting;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.common.settings.SettingsFilter;
import org.elasticsearch.core.CheckedFunction;
import org.elasticsearch.features.NodeFeature;
import org.elasticsearch.index.analysis.AbstractTokenFilterFactory;
import org.elasticsearch.index.analysis.TokenFilterFactory;
import org.elasticsearch.index.analysis.TokenizerFactory;
import org.elasticsearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.elasticsearch.plugins.ActionPlugin;
import org.elasticsearch.plugins.AnalysisPlugin;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestChannel;
import org.elasticsearch.rest.RestController;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestRequest.Method;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.xcontent.DeprecationHandler;
import org.elasticsearch.xcontent.NamedXContentRegistry;
import org.elasticsearch.xcontent.ParseField;
import org.elasticsearch.xcontent.XContentBuilder;
import org.elasticsearch.xcontent.XContentParser;
import org.elasticsearch.xcontent.XContentType;
import org.elasticsearch.xpack.core.ilm.AllocateAction;
import org.elasticsearch.xpack.core.ilm.DeleteAction;
import org.elasticsearch.xpack.core.ilm.ForceMergeAction;
import org.elasticsearch.xpack.core.ilm.LifecycleAction;
import org.elasticsearch.xpack.core.ilm.LifecyclePolicy;
import org.elasticsearch.xpack.core.ilm.LifecycleSettings;
import org.elasticsearch.xpack.core.ilm.LifecycleType;
import org.elasticsearch.xpack.core.ilm.MigrateAction;
import org.elasticsearch.xpack.core.ilm.ReadOnlyAction;
import org.elasticsearch.xpack.core.ilm.RolloverAction;
import org.elasticsearch.xpack.core.ilm.SetPriorityAction;
import org.elasticsearch.xpack.core.ilm.ShrinkAction;
import org.elasticsearch.xpack.core.ilm.TimeseriesLifecycleType;

/**
 * What Elasticsearch's build for integration tests lacks and the released one has, for tests only: {@code GET /}, and
 * {@code _ilm/policy}, which reads and checks policies with Elastic's own classes, keeps them in memory, and never executes
 * one; and parts of text analysis that the index of native users asks for.
 */
public class Gaps extends Plugin implements ActionPlugin, AnalysisPlugin {
    private static final ConcurrentMap<String, LifecyclePolicy> POLICIES = new ConcurrentSkipListMap<>();

    private static <T> NamedXContentRegistry.Entry entry(
        Class<T> type, String name, CheckedFunction<XContentParser, ? extends T, IOException> parse) {
        return new NamedXContentRegistry.Entry(type, new ParseField(name), parse);
    }

    @Override
    public List<NamedXContentRegistry.Entry> getNamedXContent() {
        return List.of(
            entry(LifecycleType.class, TimeseriesLifecycleType.TYPE, parser -> TimeseriesLifecycleType.INSTANCE),
            entry(LifecycleAction.class, RolloverAction.NAME, RolloverAction::parse),
            entry(LifecycleAction.class, DeleteAction.NAME, DeleteAction::parse),
            entry(LifecycleAction.class, ForceMergeAction.NAME, ForceMergeAction::parse),
            entry(LifecycleAction.class, ReadOnlyAction.NAME, ReadOnlyAction::parse),
            entry(LifecycleAction.class, ShrinkAction.NAME, ShrinkAction::parse),
            entry(LifecycleAction.class, AllocateAction.NAME, AllocateAction::parse),
            entry(LifecycleAction.class, MigrateAction.NAME, MigrateAction::parse),
            entry(LifecycleAction.class, SetPriorityAction.NAME, SetPriorityAction::parse));
    }

    @Override
    public List<Setting<?>> getSettings() {
        return List.of(
            LifecycleSettings.LIFECYCLE_NAME_SETTING,
            RolloverAction.LIFECYCLE_ROLLOVER_ALIAS_SETTING,
            LifecycleSettings.LIFECYCLE_INDEXING_COMPLETE_SETTING,
            LifecycleSettings.LIFECYCLE_POLL_INTERVAL_SETTING);
    }

    @Override
    public Map<String, AnalysisProvider<TokenFilterFactory>> getTokenFilters() {
        AnalysisProvider<TokenFilterFactory> unique = (index, environment, name, settings) ->
            new AbstractTokenFilterFactory(name, settings) {
                @Override
                public TokenStream create(TokenStream stream) {
                    return new RemoveDuplicatesTokenFilter(stream);
                }
            };
        AnalysisProvider<TokenFilterFactory> captured = (index, environment, name, settings) ->
            new AbstractTokenFilterFactory(name, settings) {
                @Override
                public TokenStream create(TokenStream stream) {
                    Pattern[] patterns =
                        settings.getAsList("patterns").stream().map(Pattern::compile).toArray(Pattern[]::new);
                    return new PatternCaptureGroupTokenFilter(
                        stream, settings.getAsBoolean("preserve_original", true), patterns);
                }
            };
        return Map.of("unique", unique, "pattern_capture", AnalysisPlugin.requiresAnalysisSettings(captured));
    }

    @Override
    public Map<String, AnalysisProvider<TokenizerFactory>> getTokenizers() {
        return Map.of("uax_url_email", (index, environment, name, settings) ->
            TokenizerFactory.newFactory(name, () -> new UAX29URLEmailTokenizer()));
    }

    @Override
    public List<RestHandler> getRestHandlers(
        Settings settings, NamedWriteableRegistry writeables, RestController controller, ClusterSettings clusterSettings,
        IndexScopedSettings indexSettings, SettingsFilter filter, IndexNameExpressionResolver resolver,
        Supplier<DiscoveryNodes> nodes, Predicate<NodeFeature> features) {
        return List.of(new Root(), new Policies());
    }

    private static class Root extends BaseRestHandler {
        @Override
        public String getName() {
            return "gaps_root";
        }

        @Override
        public List<Route> routes() {
            return List.of(new Route(Method.GET, "/"), new Route(Method.HEAD, "/"));
        }

        @Override
        protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
            return channel -> {
                XContentBuilder answer = channel.newBuilder().startObject();
                answer.field("name", "test").field("cluster_name", "docker-cluster").startObject("version");
                answer.field("number", Build.current().version()).field("build_flavor", "default");
                answer.field("lucene_version", Version.LATEST.toString()).endObject();
                answer.field("tagline", "You Know, for Search").endObject();
                channel.sendResponse(new RestResponse(RestStatus.OK, answer));
            };
        }
    }

    private static class Policies extends BaseRestHandler {
        @Override
        public String getName() {
            return "gaps_policies";
        }

        @Override
        public List<Route> routes() {
            return List.of(
                new Route(Method.PUT, "/_ilm/policy/{name}"),
                new Route(Method.GET, "/_ilm/policy/{name}"),
                new Route(Method.GET, "/_ilm/policy"),
                new Route(Method.DELETE, "/_ilm/policy/{name}"));
        }

        @Override
        protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) throws IOException {
            String name = request.param("name");
            if (request.method() == Method.PUT) {
                POLICIES.put(name, policy(request, name));
                return Policies::acknowledge;
            }
            if (name != null && !POLICIES.containsKey(name)) {
                return channel -> channel.sendResponse(
                    new RestResponse(RestStatus.NOT_FOUND, "application/json", "{\"error\":\"no such policy\"}"));
            }
            if (request.method() == Method.DELETE) {
                POLICIES.remove(name);
                return Policies::acknowledge;
            }
            return channel -> {
                XContentBuilder answer = channel.newBuilder().startObject();
                for (Map.Entry<String, LifecyclePolicy> one : POLICIES.entrySet()) {
                    if (name == null || name.equals(one.getKey())) {
                        answer.startObject(one.getKey()).field("version", 1).field("policy", one.getValue()).endObject();
                    }
                }
                channel.sendResponse(new RestResponse(RestStatus.OK, answer.endObject()));
            };
        }

        /** The policy in a request's body, which has it under that name. */
        private static LifecyclePolicy policy(RestRequest request, String name) throws IOException {
            byte[] text;
            try (XContentParser body = request.contentParser()) {
                XContentBuilder inner = XContentBuilder.builder(XContentType.JSON.xContent());
                inner.value(body.map().get("policy"));
                text = BytesReference.toBytes(BytesReference.bytes(inner));
            }
            NamedXContentRegistry registry;
            try (XContentParser body = request.contentParser()) {
                registry = body.getXContentRegistry();
            }
            try (XContentParser parser = XContentType.JSON.xContent().createParser(
                registry, DeprecationHandler.THROW_UNSUPPORTED_OPERATION, new ByteArrayInputStream(text))) {
                parser.nextToken();
                LifecyclePolicy policy = LifecyclePolicy.parse(parser, name);
                policy.getType().validate(policy.getPhases().values());
                return policy;
            }
        }

        private static void acknowledge(RestChannel channel) throws IOException {
            XContentBuilder answer = channel.newBuilder().startObject().field("acknowledged", true).endObject();
            channel.sendResponse(new RestResponse(RestStatus.OK, answer));
        }
    }
}
